"""What the nuScenes format fixes: the names of its tables, the splits of each version, the classes of tracks."""

TABLES = (
    'category',
    'attribute',
    'visibility',
    'instance',
    'sensor',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)
OFFICIAL_SPLITS = {  # version -> split of the devkit -> what the split is for
    'v1.0-trainval': {'train': 'train', 'val': 'val'},
    'v1.0-mini': {'mini_train': 'train', 'mini_val': 'val'},
    'v1.0-test': {'test': 'test'},
}
TRACKED_CLASSES = ('bicycle', 'bus', 'car', 'motorcycle', 'pedestrian', 'trailer', 'truck')  # of the tracking task
