"""Write the files of an own backbone, head, data set, augmentation, experiment or project to start from."""
